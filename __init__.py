"""ComfyUI-FlexiAct: the action of a reference video, performed by any image."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from comfy_api.latest import ComfyExtension
    from server import PromptServer

    from .nodes import NODE_CLASS_MAPPINGS, put_inputs, register_folders
    from .nodes.flexiact_routes import add_routes

    class FlexiActExtension(ComfyExtension):
        async def on_load(self):
            register_folders()
            put_inputs()
            add_routes(PromptServer.instance.routes)

        async def get_node_list(self):
            return list(NODE_CLASS_MAPPINGS.values())

    return FlexiActExtension()
