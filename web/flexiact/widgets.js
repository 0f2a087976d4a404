// What the pictures on the pack's nodes share.

import { app } from "../../../scripts/app.js"

const MARGIN = 8

/** A widget at the end of a node that shows `element`, at least so many pixels high; it holds no value to save. */
export function addPicture(node, name, element, minHeight, maxHeight) {
  const widget = node.addDOMWidget(name, `flexiact_${name}`, element, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => minHeight + 2 * MARGIN,
    getMaxHeight: () => maxHeight && maxHeight + 2 * MARGIN,
  })
  // The option keeps it out of what is queued, this out of saved workflows.
  widget.serialize = false
  return widget
}

/** In the classic renderer `element` lies over the canvas, which would not hear the wheel. */
export function passWheel(element) {
  element.addEventListener("wheel", (event) => LiteGraph.vueNodesMode || app.canvas.processMouseWheel(event))
}

/** Lets `then` follow whatever a method does already. */
export function after(object, method, then) {
  const before = object[method]
  object[method] = function (...values) {
    const result = before?.apply(this, values)
    then()
    return result
  }
}

/** Whether a link, not the widget, decides an input. */
export function isLinked(node, name) {
  return node.inputs.some((input) => input.widget?.name === name && input.link != null)
}

const LOADERS = ["LoadCogVideoXI2V", "LoadCogVideoXNative"]
const INSIDE = -10

/** The name of the base that a node's model comes from; "" where the graph does not say. */
export function baseOf(node) {
  let [at, graph] = [node, node.graph]
  for (let hops = 0; at && graph && hops < 100; hops++) {
    if (LOADERS.includes(at.comfyClass)) return isLinked(at, "model") ? "" : String(valueOf(at, "model") ?? "")
    const input = at.inputs?.find(({ name }) => name === "model") ?? at.inputs?.[0]
    ;[at, graph] = originOf(graph, input?.link)
  }
  return ""
}

/** The node at the beginning of a link, and its graph, through the borders of subgraphs. */
function originOf(graph, linkId) {
  let link = linkId == null ? undefined : graph.getLink(linkId)
  if (link?.origin_id === INSIDE) {
    const outside = allGraphs().find((other) => other.nodes.some((node) => node.subgraph === graph))
    const box = outside?.nodes.find((node) => node.subgraph === graph)
    return originOf(outside ?? graph, box?.inputs[link.origin_slot]?.link)
  }
  let node = link && graph.getNodeById(link.origin_id)
  while (node?.subgraph) {
    graph = node.subgraph
    link = graph.getLink(graph.outputs[link.origin_slot]?.linkIds[0])
    node = link && graph.getNodeById(link.origin_id)
  }
  return [node, graph]
}

function allGraphs() {
  return [app.graph.rootGraph ?? app.graph, ...(app.graph.rootGraph ?? app.graph).subgraphs.values()]
}

function valueOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value
}
