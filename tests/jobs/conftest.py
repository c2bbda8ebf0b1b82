from support.campaigns import drilled, local_pool, tiny_folder, write_campaign

__all__ = ["drilled", "local_pool", "tiny_folder", "write_campaign"]
