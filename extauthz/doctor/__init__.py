"""What `extauthz doctor` checks, and what it reports."""
