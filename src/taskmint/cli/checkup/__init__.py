"""What `taskmint doctor` looks at, a part each; nothing here changes anything."""
