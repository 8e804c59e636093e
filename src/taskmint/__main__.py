"""`python -m taskmint` is the `taskmint` command."""

from taskmint.cli.main import main

if __name__ == "__main__":
    main()
