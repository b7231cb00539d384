{
  # CMakeLists.txt is the build; this target lets node-gyp, node-gyp-build and
  # prebuildify drive it, leaving build/<config>/score-sde.node where they look.
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
