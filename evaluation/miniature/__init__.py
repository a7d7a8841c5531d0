"""The miniature benchmark: MMEB-v2's kinds of task on real pictures, buildable in minutes from public icon packages."""
