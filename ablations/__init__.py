"""The science, as data: toggles, scales, profiles, studies, and the published numbers to compare with."""
