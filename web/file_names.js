// Shows in the choices of files their own names first, so that none is cut off, and the folder behind: Dance - ckpts/FAE;
// and short those of models that would not fit either.
// What is chosen, saved and sent stays the whole name.

import { app } from "../../scripts/app.js"

const FILES = ["fae_file", "adapter_file", "lora_file"]
const SHORT = {
  LoadAMG: ["model", / \(built in, .*\)$/],
  GetReleasedModels: ["models", /^DynamiCtrl (?=Mask)/],
}

app.registerExtension({
  name: "flexiact.file_names",

  nodeCreated(node) {
    if (!node.constructor.nodeData?.python_module?.includes("custom_nodes")) return
    for (const widget of node.widgets ?? []) {
      if (widget.type !== "combo") continue
      if (FILES.includes(widget.name)) widget.options.getOptionLabel = label
      const [name, leftOut] = SHORT[node.comfyClass] ?? []
      if (widget.name === name) widget.options.getOptionLabel = (chosen) => String(chosen ?? "").replace(leftOut, "")
    }
  },
})

function label(name) {
  const parts = String(name ?? "").split("/")
  const own = parts.pop().replace(/\.(safetensors|pt|pth|ckpt|bin)$/, "")
  return parts.length ? `${own} - ${parts.join("/")}` : own
}
