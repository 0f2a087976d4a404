// Lets the number of frames go in the steps that a video can have, such as 1, 9, 17 ...; 0 stays the base's own.
// ComfyUI counts steps from the least value, which is 0.

import { app } from "../../scripts/app.js"

const RULE = "flexiact_frames"

app.registerExtension({
  name: "flexiact.whole_frames",

  nodeCreated(node) {
    const inputs = { ...node.constructor.nodeData?.input?.required, ...node.constructor.nodeData?.input?.optional }
    for (const widget of node.widgets ?? []) {
      const rule = inputs[widget.name]?.[1]?.[RULE]
      if (rule) goInSteps(widget, ...rule)
    }
  },
})

function goInSteps(widget, multiple, offset) {
  widget.options.step2 = multiple
  widget.options.step = 10 * multiple
  const before = widget.callback
  widget.callback = function (value, ...more) {
    const whole = value < offset ? 0 : Math.round((value - offset) / multiple) * multiple + offset
    const result = before?.call(this, whole, ...more)
    // What was there before rounds to other steps.
    this.value = whole
    return result
  }
}
