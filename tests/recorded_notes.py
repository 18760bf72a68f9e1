"""A reporter that keeps what it was told."""

from modelsgenesis.reporting import Reporter


class Notes(Reporter):
    """Keeps notes in `notes`; `text` is all of them, a line each."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    @property
    def text(self):
        return "\n".join(self.notes)
