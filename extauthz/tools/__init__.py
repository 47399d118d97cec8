"""What will a policy decide, and why?"""
