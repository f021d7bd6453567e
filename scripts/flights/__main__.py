"""Make `python -m scripts.flights` work."""

from scripts.flights.cli import app

if __name__ == "__main__":
    app(prog_name="python -m scripts.flights")
