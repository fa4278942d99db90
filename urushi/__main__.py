"""`python -m urushi` is the command `urushi`."""

from urushi.app.cli import main

if __name__ == "__main__":
    main()
