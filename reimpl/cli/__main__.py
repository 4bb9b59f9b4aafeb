"""`python -m reimpl.cli`."""

from reimpl.cli import main

if __name__ == "__main__":
    main()
