"""The papers that come with reimpl, one folder each."""
