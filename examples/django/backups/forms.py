"""What people fill in."""

from uuid import uuid4

from django import forms


class BackupForm(forms.Form):
    """A new backup. The key stays the same however often the form is sent."""

    database = forms.CharField(max_length=64)
    key = forms.UUIDField(initial=uuid4, widget=forms.HiddenInput)
