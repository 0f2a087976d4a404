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
