"""`python -m jobmill` is the command `jobmill`."""

from jobmill.cli import main

if __name__ == "__main__":
    main()
