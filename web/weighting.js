// Draws on Action Transfer and Apply Action when the action speaks: the added weight over the steps, as the server computes it.
// What can be dragged there are the node's own widgets; the picture itself is not saved.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { addPicture, after, baseOf, isLinked, passWheel } from "./flexiact/widgets.js"

const SETTINGS = ["steps", "scheduler", "bias_strength", "hold_until", "off_below", "weighting"]
const ONLY_DOTS = ["steps", "scheduler"]
// Apply Action does not know the steps: it draws the curve alone.
const WITHOUT_STEPS = { steps: 50, scheduler: "DPM" }
const NODES = ["FlexiActSampler", "ApplyFlexiAct"]
// With weighting auto the base's own curve is drawn; these nodes decide which base that is.
const AUTO = "auto"
const OF_BASE = ["hold_until", "off_below"]
const UPSTREAM = ["LoadCogVideoXI2V", "LoadCogVideoXNative", "ApplyRefAdapter", "LoadCogVideoXLora"]
const pictures = new Set()
const MIN_HEIGHT = 120
const MARGIN = { left: 34, right: 12, top: 24, bottom: 20 }
const NOISE = 1000
const LABEL_WIDTH = 92

const STYLE = `
.flexiact-weighting { display: flex; flex-direction: column; overflow: hidden; border-radius: 6px;
  background: var(--comfy-input-bg); color: var(--input-text); font: 11px sans-serif; user-select: none; }
.lg-node .flexiact-weighting { background: var(--component-node-widget-background); }
.flexiact-weighting svg { flex: 1; min-height: 0; width: 100%; touch-action: none; }
.flexiact-weighting text { fill: currentColor; }
.flexiact-weighting .quiet { stroke: currentColor; opacity: 0.35; fill: none; }
.flexiact-weighting .area { fill: #3b8eea; opacity: 0.22; }
.flexiact-weighting .curve { stroke: #3b8eea; stroke-width: 1.5; fill: none; }
.flexiact-weighting .dots { stroke: #3b8eea; stroke-width: 5; stroke-linecap: round; fill: none; }
.flexiact-weighting .mark { stroke: #e08a2c; stroke-dasharray: 3 3; }
.flexiact-weighting .handle { fill: #e08a2c; stroke: var(--comfy-input-bg); stroke-width: 1.5; }
.flexiact-weighting .grip { fill: transparent; }
.flexiact-weighting .grip.across { cursor: ew-resize; }
.flexiact-weighting .grip.along { cursor: ns-resize; }
.flexiact-weighting p { margin: 0; padding: 0 8px 5px; }
.flexiact-weighting p.wrong { color: var(--error-text); }
`

const WORDS = {
  en: {
    step: (number) => `step ${number}`,
    speaks: (first, last, steps) => `Added weight on steps ${first} to ${last} of ${steps}.`,
    silent: (steps) => `No added weight on any of the ${steps} steps.`,
    linked: (names) => `Decided by a link: ${names.join(", ")}.`,
  },
  zh: {
    step: (number) => `第 ${number} 步`,
    speaks: (first, last, steps) => `共 ${steps} 步，第 ${first} 至 ${last} 步有额外权重。`,
    silent: (steps) => `全部 ${steps} 步都没有额外权重。`,
    linked: (names) => `由连线决定：${names.join("、")}。`,
  },
}

app.registerExtension({
  name: "flexiact.weighting",

  nodeCreated(node) {
    if (NODES.includes(node.comfyClass)) {
      const picture = new WeightingPicture(node)
      pictures.add(picture)
      after(node, "onRemoved", () => pictures.delete(picture))
    }
    if (UPSTREAM.includes(node.comfyClass)) listenUpstream(node)
  },
})

class WeightingPicture {
  constructor(node) {
    this.node = node
    this.widgets = Object.fromEntries(SETTINGS.map((name) => [name, node.widgets.find((w) => w.name === name)]))
    this.answer = { timesteps: [], curve: [] }
    this.asked = 0

    this.root = document.createElement("div")
    this.root.className = "flexiact-weighting"
    this.root.style.minHeight = `${MIN_HEIGHT}px`
    this.root.appendChild(document.createElement("style")).textContent = STYLE
    this.svg = this.root.appendChild(svgElement("svg"))
    this.line = this.root.appendChild(document.createElement("p"))

    addPicture(node, "weighting_curve", this.root, MIN_HEIGHT, 2 * MIN_HEIGHT)
    passWheel(this.root)
    this.listen()
    this.askSoon()
  }

  listen() {
    for (const name of OF_BASE) after(this.widgets[name], "callback", () => this.leaveAuto(name))
    for (const widget of Object.values(this.widgets).filter(Boolean)) after(widget, "callback", () => this.askSoon())
    after(this.node, "onConfigure", () => this.askSoon())
    after(this.node, "onConnectionsChange", () => this.askSoon())
    new ResizeObserver(() => this.draw()).observe(this.svg)
    this.svg.addEventListener("pointerdown", (event) => this.grab(event))
    this.svg.addEventListener("pointermove", (event) => this.drag(event))
    this.svg.addEventListener("pointerup", () => this.release())
    this.svg.addEventListener("pointercancel", () => this.release())
  }

  value(name) {
    return this.widgets[name] ? this.widgets[name].value : WITHOUT_STEPS[name]
  }

  /** A number of the curve that is drawn; with weighting auto that is the base's own. */
  shown(name) {
    return (this.isAuto() && this.answer.shown?.[name]) || this.value(name)
  }

  isAuto() {
    return this.value("weighting") === AUTO
  }

  /** Once a number of the base's own curve is set by hand, all of it is: the others become what was drawn. */
  leaveAuto(changed) {
    if (!this.isAuto()) return
    const drawn = this.answer.shown ?? {}
    for (const name of [...OF_BASE, "bias_strength"]) {
      if (name !== changed && drawn[name] !== undefined) this.widgets[name].value = drawn[name]
    }
    this.widgets.weighting.value = "paper"
  }

  /** The setting as the node calls it in the reader's language. */
  name(setting) {
    return this.widgets[setting].label ?? setting
  }

  linked() {
    return SETTINGS.filter((name) => isLinked(this.node, name))
  }

  askSoon() {
    clearTimeout(this.waiting)
    this.waiting = setTimeout(() => this.ask(), 40)
  }

  async ask() {
    const asked = ++this.asked
    const settings = new URLSearchParams(SETTINGS.map((name) => [name, this.value(name)]))
    settings.set("base", baseOf(this.node))
    const response = await api.fetchApi(`/flexiact/weighting?${settings}`)
    const answer = await response.json()
    // Only the answer to the last question counts.
    if (asked === this.asked) {
      this.answer = { timesteps: [], curve: [], ...answer }
      this.draw()
    }
  }

  /** Draws what the server answered, unless links decide. */
  draw() {
    const linked = this.linked()
    const known = linked.every((name) => ONLY_DOTS.includes(name))
    const { timesteps, error } = this.answer
    const curve = known ? this.answer.curve : []
    const steps = linked.length || !this.widgets.steps ? [] : timesteps

    this.line.textContent = linked.length
      ? words().linked(linked.map((name) => this.name(name)))
      : (error ?? this.sentence(curve, steps))
    this.line.className = !linked.length && error ? "wrong" : ""

    this.width = this.svg.clientWidth
    this.height = this.svg.clientHeight
    if (!this.height) return
    if (!this.dragged) this.range = rangeOf(curve.length ? curve : [Number(this.shown("bias_strength"))])

    this.svg.replaceChildren(
      ...this.drawAxes(steps),
      ...this.drawCurve(curve, steps),
      ...this.drawMarks(linked),
    )
  }

  sentence(curve, steps) {
    if (!steps.length) return ""
    const speaking = steps.flatMap((timestep, index) => (curve[timestep] ? [index + 1] : []))
    if (!speaking.length) return words().silent(steps.length)
    return words().speaks(speaking[0], speaking.at(-1), steps.length)
  }

  drawAxes(steps) {
    const zero = this.y(0)
    const [low, high] = this.range
    const numbers = [0, low, high].filter((bias, index) => index === 0 || bias !== 0)
    return [
      svgElement("path", { class: "quiet", d: `M${this.x(NOISE)} ${zero}H${this.x(0)}` }),
      ...numbers.map((bias) => label(this.x(NOISE) - 5, this.y(bias) + 4, "end", short(bias))),
      ...(steps.length ? [label(this.x(steps[0]), this.height - 5, "start", words().step(1))] : []),
      ...(steps.length > 1 ? [label(this.x(0), this.height - 5, "end", words().step(steps.length))] : []),
    ]
  }

  drawCurve(curve, steps) {
    if (!curve.length) return []
    const points = curve.map((bias, timestep) => `${this.x(timestep)} ${this.y(bias)}`)
    const line = `M${points.join("L")}`
    const dots = steps.map((timestep) => `M${this.x(timestep)} ${this.y(curve[timestep])}h0`)
    return [
      svgElement("path", { class: "area", d: `${line}V${this.y(0)}H${this.x(0)}Z` }),
      svgElement("path", { class: "curve", d: line }),
      svgElement("path", { class: "dots", d: dots.join("") }),
    ]
  }

  drawMarks(linked) {
    const strength = this.y(Number(this.shown("bias_strength")))
    const hold = this.x(this.shown("hold_until"))
    const off = this.x(this.shown("off_below"))
    // Beside their marks, but inside the picture and not on each other.
    const holdLabel = clamp(hold - 4, LABEL_WIDTH, this.width - LABEL_WIDTH - 12)
    const offLabel = clamp(off + 4, holdLabel + 8, this.width - LABEL_WIDTH)
    const marks = {
      hold_until: () => this.drawMark("hold_until", hold, holdLabel, "end"),
      off_below: () => this.drawMark("off_below", off, offLabel, "start"),
      bias_strength: () => this.drawStrength((this.x(NOISE) + hold) / 2, strength),
    }
    return Object.keys(marks).flatMap((name) => (linked.includes(name) ? [] : marks[name]()))
  }

  drawMark(name, x, labelX, anchor) {
    const [top, bottom] = [MARGIN.top, this.height - MARGIN.bottom]
    return [
      svgElement("path", { class: "mark", d: `M${x} ${top}V${bottom}` }),
      label(labelX, 12, anchor, `${this.name(name)} ${this.shown(name)}`),
      svgElement("circle", { class: "handle", cx: x, cy: top, r: 4.5 }),
      svgElement("rect", {
        class: "grip across", x: x - 7, y: top - 10, width: 14, height: bottom - top + 10, "data-setting": name,
      }),
    ]
  }

  drawStrength(x, y) {
    return [
      svgElement("circle", { class: "handle", cx: x, cy: y, r: 4.5 }),
      svgElement("circle", { class: "grip along", cx: x, cy: y, r: 10, "data-setting": "bias_strength" }),
    ]
  }

  x(timestep) {
    return MARGIN.left + (1 - timestep / NOISE) * (this.width - MARGIN.left - MARGIN.right)
  }

  y(bias) {
    const [low, high] = this.range
    return MARGIN.top + ((high - bias) / (high - low)) * (this.height - MARGIN.top - MARGIN.bottom)
  }

  grab(event) {
    this.dragged = event.target.dataset.setting
    if (this.dragged) this.svg.setPointerCapture(event.pointerId)
  }

  drag(event) {
    if (!this.dragged) return
    const box = this.svg.getBoundingClientRect()
    // The graph's zoom scales what is seen, not what is drawn.
    const x = ((event.clientX - box.left) / box.width) * this.width
    const y = ((event.clientY - box.top) / box.height) * this.height
    const timestep = NOISE * (1 - (x - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right))
    const [low, high] = this.range
    const bias = high - ((y - MARGIN.top) / (this.height - MARGIN.top - MARGIN.bottom)) * (high - low)
    // With weighting auto the strength is so many times the base's own.
    const unit = this.isAuto() && this.answer.own_strength ? this.answer.own_strength : 1
    const wanted = {
      hold_until: Math.max(Math.round(timestep), this.shown("off_below") + 1),
      off_below: Math.min(Math.round(timestep), this.shown("hold_until") - 1),
      bias_strength: Math.round((bias / unit) * 20) / 20,
    }
    this.set(this.dragged, wanted[this.dragged])
  }

  release() {
    this.dragged = undefined
    this.draw()
  }

  set(name, value) {
    const widget = this.widgets[name]
    widget.value = clamp(value, widget.options.min, widget.options.max)
    widget.callback?.(widget.value, app.canvas, this.node)
    this.draw()
    this.node.setDirtyCanvas(true, true)
  }
}

/** Draws all curves anew when it may be another base that they belong to. */
function listenUpstream(node) {
  const askAll = () => pictures.forEach((picture) => picture.askSoon())
  const model = node.widgets?.find((widget) => widget.name === "model")
  if (model) after(model, "callback", askAll)
  for (const event of ["onConfigure", "onConnectionsChange", "onRemoved"]) after(node, event, askAll)
}

function words() {
  const locale = app.extensionManager.setting.get("Comfy.Locale")
  return locale?.startsWith("zh") ? WORDS.zh : WORDS.en
}

/** From the least to the most of these numbers, 0 included, and never nothing. */
function rangeOf(numbers) {
  const low = Math.min(0, ...numbers)
  const high = Math.max(0, ...numbers)
  return low === high ? [0, 1] : [low, high]
}

function clamp(number, low, high) {
  return Math.max(low, Math.min(number, high))
}

function short(number) {
  return String(Math.round(number * 100) / 100)
}

function label(x, y, anchor, text) {
  const element = svgElement("text", { x, y, "text-anchor": anchor })
  element.textContent = text
  return element
}

function svgElement(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  return element
}
