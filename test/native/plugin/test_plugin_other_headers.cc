// A plugin of another version: whoever touches anything but its first word crashes.
extern "C" __attribute__((visibility("default"))) const void* lorax_cuda_plugin_v1() {
  static const char* const kTable[] = {"0000000000000000-libstdc++"};
  return kTable;
}
