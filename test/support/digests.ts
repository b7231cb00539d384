/** What test/native/digest.cpp prints on any machine, but for the lines in which the C library has a part. */
export const everywhere = `
philox 2f8aa93826088fed
normals 79217440a949cc53
torch.float32 331f3454578139c0
predict 00c81170b6cd98d3
correct fe339e5940abe415
perturb 2036b72ca210a458
sums 04ceeec10c00c3aa
conversions edd962801af2379c
clamp c464bc34fad9acfc
quantize 274c07d0de8955bd
linspace 446bea67e7bc07dc
linear 2beddba0a41224b3
mixed 2936dd00de4c5e3e
`
  .trim()
  .split('\n');
