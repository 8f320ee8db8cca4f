"""Pages for people: files that a browser loads, which ask the API for everything that they show.

No page has a customer's data in it, so all are public; who may see what is decided by the API. Files
are HTML, CSS and ES modules as they are written, without a build.
"""
