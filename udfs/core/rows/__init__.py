"""Rows on their way to a stage: raw records decoded, validated, looked up and derived; what fails becomes a letter."""
