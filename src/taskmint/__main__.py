"""`python -m taskmint` is the `taskmint` command."""

from taskmint.cli.entry import main

if __name__ == "__main__":
    main()
