"""Write the lookup tables of the flights pipeline: `planes.csv` and `airports.csv`, sorted, missing values empty."""

import csv
from pathlib import Path

from scripts.flights import dataset

PLANES = ("tailnum", "year", "seats", "engines")
AIRPORTS = ("faa", "name", "lat", "lon", "alt")


def write_lookups(folder: Path) -> dict[Path, int]:
    """Write both files into a pipeline folder; return file -> rows.

    Raises
    ------
    DatasetError : the data is not installed.
    """
    written = {}
    for name, columns, table in (("planes", PLANES, dataset.planes()), ("airports", AIRPORTS, dataset.airports())):
        path = folder / f"{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(table[column].to_pylist() for column in columns), strict=True))
        written[path] = table.num_rows
    return written
