"""The screens: layouts, figures and events. Never does tensor arithmetic."""
