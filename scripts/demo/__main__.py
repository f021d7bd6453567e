"""Make `python -m scripts.demo` work."""

from scripts.demo.cli import app

if __name__ == "__main__":
    app(prog_name="python -m scripts.demo")
