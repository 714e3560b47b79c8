"""Tests of the package harpd."""
