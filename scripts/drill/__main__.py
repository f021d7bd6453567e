"""python -m scripts.drill"""

from scripts.drill.cli import app

if __name__ == "__main__":
    app(prog_name="python -m scripts.drill")
