"""`python -m extauthz`."""

from extauthz.cli import main

main()
