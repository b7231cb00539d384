// Takes the place of libgcc's description of the processor, which chooses among the clones of a kernel: those of a
// lesser instruction set run here too. In libgcc's numbering x86-64-v3 is feature 97, the second bit of the third word.
extern "C" {
struct {
  unsigned vendor, type, subtype, features;
} __cpu_model;
unsigned __cpu_features2[8] = {0, 0, X86_64_V3 ? 2 : 0};
int __cpu_indicator_init() { return 0; }
}
