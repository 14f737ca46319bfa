"""Pictures and clips: types, containers, raw formats, stills, the clip library."""
