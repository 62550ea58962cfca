"""The science, as data: toggles, scales, profiles, studies, and the published numbers they answer to."""
