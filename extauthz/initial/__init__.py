"""What does a first configuration look like?"""
