// Takes the last preview off a sampler when the run is done: the result is then the largest picture of the graph.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const SAMPLERS = ["FlexiActSampler", "DynamiCtrlSampler", "AMGSampler"]

app.registerExtension({
  name: "flexiact.previews_end",

  setup() {
    const shown = new Set()
    api.addEventListener("b_preview_with_metadata", ({ detail }) => shown.add(String(detail.displayNodeId)))
    api.addEventListener("execution_success", () => {
      for (const id of shown) takeOff(id)
      shown.clear()
    })
  },
})

/** id is that of a run: 5, or 2:5 for node 5 in the subgraph 2, which shows the preview, too. */
function takeOff(id) {
  const nodes = []
  let graph = app.rootGraph ?? app.graph
  for (const part of id.split(":")) {
    nodes.push(graph?.getNodeById(Number(part)))
    graph = nodes.at(-1)?.subgraph
  }
  if (!SAMPLERS.includes(nodes.at(-1)?.comfyClass)) return
  // The frontend has no public way to do this; where this one is gone, the preview stays.
  const outputs = app.extensionManager?._p?._s?.get("nodeOutput")
  nodes.forEach((node, index) => {
    outputs?.revokePreviewsByExecutionId?.(id.split(":").slice(0, index + 1).join(":"))
    node.imgs = undefined
    node.imageIndex = null
    node.setDirtyCanvas(true, true)
  })
}
