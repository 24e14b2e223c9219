"""`python -m textmill`."""

from textmill.cli import main

if __name__ == "__main__":
    main()
