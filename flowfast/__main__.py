"""`python -m flowfast`."""

from flowfast.cli import main

if __name__ == "__main__":
    main()
