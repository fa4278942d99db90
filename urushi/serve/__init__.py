"""Serves what `urushi restore` does: a page for people, and an HTTP interface for programs.

The process that answers requests reads no picture and runs no network: workers do (`workers`,
`tasks`), each a process of its own. What they are handed lies in folders whose names are made here
(`store`); what a client may use is bounded (`limits`), and checked before any of it is read
(`gate`).
"""
