// Says on a node, in the pack's own sentence, which of its files is missing and how to get it; and reads the lists anew
// once Get Released Models has fetched something.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { addPicture, after, isLinked, passWheel } from "./flexiact/widgets.js"

const CHOOSERS = [
  "LoadCogVideoXI2V",
  "LoadCogVideoXNative",
  "ApplyRefAdapter",
  "LoadFAEEmbedding",
  "LoadReleasedAction",
  "LoadCogVideoXLora",
  "LoadACTVAE",
  "LoadAMG",
]
const LINE_HEIGHT = 16
const SIGNS_A_LINE = 46

app.registerExtension({
  name: "flexiact.missing_files",

  nodeCreated(node) {
    if (CHOOSERS.includes(node.comfyClass)) node.flexiactMissing = new MissingFile(node)
  },

  setup() {
    api.addEventListener("executed", ({ detail }) => {
      const node = app.graph.getNodeById(detail.display_node ?? detail.node)
      // What pressing R does: lists, and the host's own panel of what is missing.
      if (node?.comfyClass === "GetReleasedModels")
        app.extensionManager.command.execute("Comfy.RefreshNodeDefinitions")
    })
  },

  refreshComboInNodes() {
    for (const node of app.graph.nodes) node.flexiactMissing?.ask()
  },
})

class MissingFile {
  constructor(node) {
    this.node = node
    this.choices = node.widgets.filter(({ type }) => type === "combo")
    this.root = document.createElement("div")
    this.root.className = "flexiact-missing"
    Object.assign(this.root.style, {
      fontSize: "12px", lineHeight: `${LINE_HEIGHT}px`, color: "#f0b060", overflowWrap: "anywhere", userSelect: "text",
      overflowY: "auto",
    })
    passWheel(this.root)
    for (const choice of this.choices) after(choice, "callback", () => this.askSoon())
    for (const event of ["onAdded", "onConfigure", "onConnectionsChange"]) after(node, event, () => this.askSoon())
  }

  /** Once for all that happens while a workflow is opened. */
  askSoon() {
    clearTimeout(this.waiting)
    this.waiting = setTimeout(() => this.ask())
  }

  async ask() {
    const query = new URLSearchParams({ node: this.node.comfyClass })
    for (const { name, value } of this.choices) if (!isLinked(this.node, name)) query.set(name, value)
    const answer = await api.fetchApi(`/flexiact/missing?${query}`).catch(() => undefined)
    const { sentence } = answer?.ok ? await answer.json() : {}
    // Another choice may have been made, or the node be gone, by the time the answer is there.
    if (this.node.graph?.getNodeById(this.node.id) === this.node) this.show(sentence ?? "")
  }

  show(sentence) {
    if (sentence === this.root.textContent) return
    this.root.textContent = sentence
    if (this.widget) this.node.removeWidget(this.widget)
    const lines = Math.ceil(sentence.length / SIGNS_A_LINE)
    this.widget = sentence ? addPicture(this.node, "missing_file", this.root, lines * LINE_HEIGHT) : undefined
    const height = this.node.computeSize()[1]
    this.node.setSize([this.node.size[0], sentence ? Math.max(this.node.size[1], height) : height])
    this.node.setDirtyCanvas(true, true)
  }
}
