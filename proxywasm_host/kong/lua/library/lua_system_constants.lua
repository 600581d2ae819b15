-- Flags of `open` on Linux.
local constants = {}
for name, value in pairs {
  O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 64, O_EXCL = 128, O_TRUNC = 512, O_APPEND = 1024,
  S_IRUSR = 256, S_IWUSR = 128, S_IRGRP = 32, S_IWGRP = 16, S_IROTH = 4, S_IWOTH = 2,
} do constants[name] = function() return value end end
return constants
