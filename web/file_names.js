// Shows in the choices of files their own names first, so that none is cut off, and the folder behind: Dance - ckpts/FAE.
// What is chosen, saved and sent stays the whole name.

import { app } from "../../scripts/app.js"

const FILES = ["fae_file", "adapter_file", "lora_file"]

app.registerExtension({
  name: "flexiact.file_names",

  nodeCreated(node) {
    if (!node.constructor.nodeData?.python_module?.includes("custom_nodes")) return
    for (const widget of node.widgets ?? [])
      if (widget.type === "combo" && FILES.includes(widget.name)) widget.options.getOptionLabel = label
  },
})

function label(name) {
  const parts = String(name ?? "").split("/")
  const own = parts.pop().replace(/\.(safetensors|pt|pth|ckpt|bin)$/, "")
  return parts.length ? `${own} - ${parts.join("/")}` : own
}
