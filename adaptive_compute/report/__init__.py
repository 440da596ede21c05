"""The report: what a profile says, as one self-contained HTML page. ``collect`` gives figures, ``page`` draws them."""
