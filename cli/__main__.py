"""`python -m cli`: the same as the command `crossfill`."""

from cli.main import app

if __name__ == "__main__":
    app(prog_name="crossfill")
