"""`python -m modelsgenesis`, which `torchrun -m modelsgenesis` uses too."""

from modelsgenesis.cli import main

if __name__ == "__main__":
    main()
