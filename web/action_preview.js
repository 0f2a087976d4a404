// Shows on Load Action the clip that the chosen action was learned from, where one lies beside its file.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { addPicture, after, isLinked, passWheel } from "./flexiact/widgets.js"

const MIN_HEIGHT = 100

app.registerExtension({
  name: "flexiact.action_preview",

  nodeCreated(node) {
    if (node.comfyClass === "LoadFAEEmbedding") new ActionPreview(node)
  },
})

class ActionPreview {
  constructor(node) {
    this.node = node
    this.file = node.widgets.find((widget) => widget.name === "fae_file")
    this.root = document.createElement("div")
    Object.assign(this.root.style, { minHeight: `${MIN_HEIGHT}px`, position: "relative" })
    passWheel(this.root)
    // Out of sight it costs nothing; moved from one renderer to the other it plays on.
    this.watcher = new IntersectionObserver(([{ isIntersecting, target }]) =>
      isIntersecting ? target.play().catch(() => {}) : target.pause(),
    )
    after(this.file, "callback", () => this.loadSoon())
    for (const event of ["onAdded", "onConfigure", "onConnectionsChange"]) after(node, event, () => this.loadSoon())
  }

  /** Once for all that happens while a workflow is opened. */
  loadSoon() {
    clearTimeout(this.waiting)
    this.waiting = setTimeout(() => this.load())
  }

  load() {
    const name = isLinked(this.node, "fae_file") ? undefined : this.file.value
    if (name === this.name) return
    this.name = name
    if (!name) return this.hide()

    const video = Object.assign(document.createElement("video"), { muted: true, loop: true, playsInline: true })
    Object.assign(video.style, { position: "absolute", inset: 0, width: "100%", height: "100%", objectFit: "contain" })
    video.addEventListener("loadeddata", () => this.wants(name) && this.show(video))
    video.addEventListener("error", () => this.wants(name) && this.hide())
    video.src = api.apiURL(`/flexiact/preview?${new URLSearchParams({ file: name })}`)
  }

  /** Whether this action is still chosen, on a node that is still there. */
  wants(name) {
    return name === this.name && this.node.graph?.getNodeById(this.node.id) === this.node
  }

  show(video) {
    this.watcher.disconnect()
    this.root.replaceChildren(video)
    this.watcher.observe(video)
    if (this.widget) return
    this.widget = addPicture(this.node, "action_preview", this.root, MIN_HEIGHT)
    this.resize(Math.max(this.node.size[1], this.node.computeSize()[1]))
  }

  hide() {
    if (!this.widget) return
    this.node.removeWidget(this.widget)
    this.widget = undefined
    this.resize(this.node.computeSize()[1])
  }

  resize(height) {
    this.node.setSize([this.node.size[0], height])
    this.node.setDirtyCanvas(true, true)
  }
}
