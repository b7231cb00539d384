{
  # CMakeLists.txt is the build; this target lets prebuildify drive it through
  # node-gyp, leaving build/<config>/score-sde.node where prebuildify looks. It
  # is not in the package, where npm would run node-gyp by itself.
  "targets": [{
    "target_name": "cmake",
    "type": "none",
    "actions": [{
      "action_name": "cmake-js",
      "message": "building with CMake",
      "inputs": ["CMakeLists.txt"],
      "outputs": ["<(PRODUCT_DIR)/score-sde.node"],
      "action": [
        "node", "<!(node -p \"require.resolve('cmake-js/bin/cmake-js')\")",
        "compile", "--out", "<(module_root_dir)/build/cmake", "--config", "<(CONFIGURATION_NAME)",
        "--arch", "<(target_arch)"
      ]
    }]
  }]
}
