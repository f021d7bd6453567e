"""The demo: two months of real flights through the whole path, checked record by record."""
