"""The contract between converters and server: where models lie on disk, and what their configuration may say."""
