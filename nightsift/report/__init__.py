"""The report of a night as one HTML page.

`choice` picks candidates, `pictures` draws their stamps, `verdict` says it in words, `page` writes the HTML.
"""
