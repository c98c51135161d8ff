"""`python -m aldis` is the command `aldis`."""

from aldis.cli.main import main

if __name__ == "__main__":
    main()
